/* Managed connections as Python has them: what manage(), stats() and the like need of
   C, and where C asks and tells Python. */
#ifndef PYKEYUPDATE_MANAGED_H
#define PYKEYUPDATE_MANAGED_H

#include "errors.h"

/* The functions of pykeyupdate._keyupdate about them, ended by a NULL entry. */
extern PyMethodDef ku_managed[];

/* Its keys must be changed and cannot be, for this reason: may it go on?  0: yes, -1
   with an exception.  With the GIL, and outside of OpenSSL. */
int ku_managed_ask(ku_state *state, PyObject *conn, const char *function,
                   const struct ku_outcome *outcome);

/* Tell what has happened (enum ku_event), and why the peer was cut off, or NULL.  An
   exception that is set stays. */
void ku_managed_tell(ku_state *state, PyObject *conn, int events, const char *why_cut);

/* The same of what has happened in a step (step.h) that the owner of an SSLObject has
   taken.  A managed socket's calls tell by themselves. */
void ku_managed_tell_of(ku_state *state, PyObject *conn);

#endif
