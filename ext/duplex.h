/* The pump as a Python object, in the place of the _ssl._SSLSocket. */
#ifndef PYKEYUPDATE_DUPLEX_H
#define PYKEYUPDATE_DUPLEX_H

#include "state.h"

/* The type, made for a module; a new reference. */
PyObject *ku_duplex_type(PyObject *module);

/* The _ssl._SSLSocket inside, borrowed. */
PyObject *ku_duplex_inner(PyObject *duplex);

/* Keep all other threads out of a connection, and let them in again.  Called and
   left with the GIL.  -1 with an exception where it cannot be used. */
int ku_duplex_enter(ku_state *state, PyObject *duplex);
void ku_duplex_leave(PyObject *duplex);

/* Between enter and leave: have OpenSSL process what has been received, and keep
   the data for the next reader.  What fails shows in the next step. */
void ku_duplex_settle(ku_state *state, PyObject *duplex);

/* Between enter and leave: OpenSSL is being called (1), or has been (-1). */
void ku_duplex_in_openssl(PyObject *duplex, int change);

#endif
