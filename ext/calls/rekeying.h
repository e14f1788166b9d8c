/* Steps of a handshake, for rekey() and its like. */
#ifndef PYKEYUPDATE_REKEYING_H
#define PYKEYUPDATE_REKEYING_H

#include <Python.h>

/* What kind of message does this side have to send?  The members of ToSend
   (pykeyupdate/_rekeying.py). */
/* clang-format off */
#define KU_TO_SEND(X)                                    \
    X(SENDS_NOTHING, NOTHING)                            \
    X(SENDS_KEY_UPDATE, KEY_UPDATE)         /* scheduled, or half sent */ \
    X(SENDS_ANSWER, ANSWER)                 /* to the peer's request */ \
    X(SENDS_RENEGOTIATION, RENEGOTIATION)                \
    X(SENDS_RENEGOTIATION_UNSENT, RENEGOTIATION_UNSENT)    /* a message is half sent */ \
    X(SENDS_OTHER_MESSAGE, OTHER_MESSAGE)   /* post-handshake, half sent */
/* clang-format on */

#define KU_KIND(number, name) number,
enum ku_to_send { KU_TO_SEND(KU_KIND) };
#undef KU_KIND

/* The functions for pykeyupdate._keyupdate that only the package itself calls; the last
   entry is NULL. */
extern PyMethodDef ku_rekeying[];

#endif
