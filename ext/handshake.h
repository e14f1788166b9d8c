/* Steps of a handshake, for rekey() and its like. */
#ifndef PYKEYUPDATE_HANDSHAKE_H
#define PYKEYUPDATE_HANDSHAKE_H

#include "step.h"

/* Functions of pykeyupdate._keyupdate that only the package itself calls, ended
   by a NULL entry. */
extern PyMethodDef ku_handshake[];

/* Raise what a _msg_callback or the key log has raised in OpenSSL's hands: _ssl keeps it
   until the end of a do_handshake(), so one that has nothing to do is made.  (From 3.15
   on it is raised at once.)  0, or -1 with the exception.

   In a renegotiation that handshake would have something to do: what is kept then comes
   out of a later call.  Not of one that has data to return (`of_data`), which would be
   lost: _ssl itself has it come out, mostly, beneath an SSLWantReadError. */
int ku_raise_kept(ku_state *state, PyObject *sslobj, int of_data);

/* Has the context of a new connection such callbacks?  What is given to a context later
   OpenSSL does not call for connections that there are.  -1 with an exception. */
int ku_has_callbacks(PyObject *sslobj);

#endif
