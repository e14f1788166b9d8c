/* The pump as a Python object, in the place of the _ssl._SSLSocket. */
#ifndef PYKEYUPDATE_DUPLEX_H
#define PYKEYUPDATE_DUPLEX_H

#include "openssl/outcome.h"
#include "openssl/module_state.h"

/* The type, made for a module; a new reference. */
PyObject *ku_duplex_type(PyObject *module);

/* The _ssl._SSLSocket inside, borrowed. */
PyObject *ku_duplex_inner(PyObject *duplex);

/* Take a step, refused where this thread is in one of this connection; send what it
   makes if it is `sent`, and wait for that as the socket does.  0 and its value, or -1
   with an exception. */
int ku_duplex_take_step(PyObject *duplex, const char *function, ku_step step,
                        intptr_t argument, int sent, int *value);

/* Take one that only looks, at any time; -1 with an exception where the connection
   cannot be used. */
int ku_duplex_look(PyObject *duplex, const char *function, ku_step step,
                   intptr_t argument, struct ku_outcome *outcome);

#endif
