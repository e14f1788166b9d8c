/* Where C asks Python (on_impossible) and tells it (events). */
#ifndef PYKEYUPDATE_TELLING_H
#define PYKEYUPDATE_TELLING_H

#include "keys/ledger.h"
#include "openssl/errors.h"

/* What is to be told at the end of a call. */
struct ku_news {
    int events;                   /* enum ku_event */
    const char *why_cut;          /* of KU_CUT */
    struct ku_outcome impossible; /* of KU_IMPOSSIBLE */
};

/* Its keys must be changed and cannot be, for this reason: may it go on?  0: yes, -1
   with an exception.  With the GIL, and outside of OpenSSL.  What is the news of it is
   added. */
int ku_ask_on_impossible(ku_state *state, PyObject *conn, const char *function,
                         const struct ku_outcome *outcome, struct ku_ledger *ledger,
                         struct ku_news *news);

/* Tell; an exception that is set stays, and gets another context where telling raises
   one: of a signal handler, or SystemExit and the like of an event's.  -1 where one is
   set. */
int ku_tell_events(ku_state *state, PyObject *conn, const struct ku_news *news);

/* The same of what has happened in a step (step.h) of an _ssl._SSLSocket's: if it is a
   managed SSLObject's.  A managed socket's calls tell by themselves. */
int ku_tell_events_of_object(ku_state *state, PyObject *sslobj);

#endif
