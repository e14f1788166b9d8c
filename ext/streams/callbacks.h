/* What a context's callbacks (_msg_callback, the key log) have raised, and _ssl has
   stored. */
#ifndef PYKEYUPDATE_CALLBACKS_H
#define PYKEYUPDATE_CALLBACKS_H

#include "openssl/module_state.h"

/* Does the connection's context have callbacks whose exceptions _ssl stores until the
   end of a do_handshake()?  Returns 1, 0, or -1 with an exception.  From Python 3.15 on
   always 0: exceptions are raised at once.  OpenSSL does not call a callback that the
   context gets later for connections that already exist.  Runs Python code. */
int ku_has_callbacks(PyObject *sslobj);

/* Raise what a _msg_callback or the key log has raised while OpenSSL ran, by way of a
   do_handshake() that has nothing to do.  Returns 0, or -1 with the exception.

   During a renegotiation that handshake would have something to do, so what is stored
   stays there for a later call.  A later call that has data to return (`of_data`) drops
   it, because raising it would lose the data: _ssl itself mostly raises it beneath an
   SSLWantReadError. */
int ku_raise_callback_exception(ku_state *state, PyObject *sslobj, int of_data);

#endif
