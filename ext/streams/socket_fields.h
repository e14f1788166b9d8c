/* The descriptor and the timeout of a Python socket, read where _socket keeps them.
   _ssl reads the same two fields for each of its calls. */
#ifndef PYKEYUPDATE_SOCKET_FIELDS_H
#define PYKEYUPDATE_SOCKET_FIELDS_H

#include "openssl/module_state.h"
#include "system/wire.h"

/* Find out whether this _socket keeps them where we look, by changing those of a socket
   of our own.  Sets state->reads_socket_fields.  Returns 0, or -1 with an exception. */
int ku_socket_fields_prove(ku_state *state);

/* Get the descriptor, and the timeout in seconds (-1: it blocks).  Asks the socket by its
   methods where the proof has failed.  Returns 0, or -1 with an exception. */
int ku_socket_fields(const ku_state *state, PyObject *socket, ku_socket *descriptor,
                     double *timeout);

#endif
