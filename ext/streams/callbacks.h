/* What the callbacks of a context (msg_callback, key log) have raised: _ssl keeps it. */
#ifndef PYKEYUPDATE_CALLBACKS_H
#define PYKEYUPDATE_CALLBACKS_H

#include "openssl/module_state.h"

/* Has its context callbacks whose exceptions _ssl keeps until the end of a
   do_handshake()?  (Not from 3.15 on, where they are raised at once.)  What is given
   to a context later OpenSSL does not call for connections that there are.  -1 with an
   exception.  Runs Python code. */
int ku_has_callbacks(PyObject *sslobj);

/* Raise what a _msg_callback or the key log has raised in OpenSSL's hands, by way of a
   do_handshake() that has nothing to do.  0, or -1 with the exception.

   In a renegotiation that handshake would have something to do: what is kept then comes
   out of a later call.  Not of one that has data to return (`of_data`), which would be
   lost: _ssl itself has it come out, mostly, beneath an SSLWantReadError. */
int ku_raise_kept(ku_state *state, PyObject *sslobj, int of_data);

#endif
