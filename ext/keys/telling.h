/* Where C asks Python (on_impossible) and reports events to it.  All of it needs the
   GIL. */
#ifndef PYKEYUPDATE_TELLING_H
#define PYKEYUPDATE_TELLING_H

#include "keys/ledger.h"
#include "openssl/errors.h"

/* What to report at the end of a call. */
struct ku_report {
    int events;                   /* bits of enum ku_event */
    const char *why_cut;          /* for KU_EVENT_CUT_OFF */
    struct ku_outcome impossible; /* for KU_EVENT_IMPOSSIBLE */
    enum ku_change why_changed;   /* for KU_EVENT_UPDATE_SENT and _RENEGOTIATED */
    enum ku_change why_due;       /* for KU_EVENT_DEFERRED */
    ku_time since_update;         /* for KU_EVENT_FAILED */
};

/* Move the ledger's events into `report`, with what is to be said of them. */
void ku_take_events(struct ku_ledger *ledger, struct ku_report *report);

/* The keys of `conn` must change and cannot, for the reason in `outcome`: ask
   on_impossible whether data may go on.  Returns 0 if it may, or -1 with an exception.
   Adds KU_EVENT_IMPOSSIBLE to `report` the first time.  Call it outside OpenSSL. */
int ku_ask_on_impossible(ku_state *state, PyObject *conn, const char *function,
                         const struct ku_outcome *outcome, struct ku_ledger *ledger,
                         struct ku_report *report);

/* Make the `report`.  If reporting raises (a signal handler does, or an event handler
   raises SystemExit or the like), that exception is set, with the one that was set
   before as its context.  Returns 0, or -1 if an exception is set. */
int ku_tell_events(ku_state *state, PyObject *conn, const struct ku_report *report);

/* Move the events of an SSLObject, which this thread does not occupy, into `report`.  Its
   `sslobj` is the _ssl._SSLSocket.  If a call is under way that occupies it, that call
   tells them when it ends, and nothing is moved. */
void ku_collect_events(PyObject *sslobj, struct ku_ledger *ledger,
                       struct ku_report *report);

/* The same as ku_tell_events() for the events of a step (calls/step.h) on an
   _ssl._SSLSocket, if that is a managed SSLObject's.  A managed socket's calls report
   their own. */
int ku_tell_events_of_object(ku_state *state, PyObject *sslobj);

#endif
