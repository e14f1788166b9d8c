/* The pump as a Python object, in place of an _ssl._SSLSocket.  All of it needs the
   GIL. */
#ifndef PYKEYUPDATE_DUPLEX_H
#define PYKEYUPDATE_DUPLEX_H

#include "openssl/outcome.h"
#include "openssl/module_state.h"

/* Make the type for a module.  Returns a new reference, or NULL with an exception. */
PyObject *ku_duplex_type(PyObject *module);

/* The _ssl._SSLSocket inside; a borrowed reference. */
PyObject *ku_duplex_inner(PyObject *duplex);

/* read() with one or two arguments, and write(), as _ssl._SSLSocket has them.  Return a new
   reference, or NULL with an exception. */
PyObject *ku_duplex_read(PyObject *duplex, PyObject *const *arguments,
                         Py_ssize_t count);
PyObject *ku_duplex_write(PyObject *duplex, PyObject *data);

/* Take a step; refused if this thread is already in a step of this connection.  If
   `sent`, also send what the step makes, waiting as long as the socket does.  Returns 0
   and sets `value`, or -1 with an exception. */
int ku_duplex_take_step(PyObject *duplex, const char *function, ku_step step,
                        intptr_t argument, int sent, int *value);

/* Take a step that only looks, which is allowed at any time.  Returns 0 and sets
   `outcome`, or -1 with an exception if the connection cannot be used. */
int ku_duplex_look(PyObject *duplex, const char *function, ku_step step,
                   intptr_t argument, struct ku_outcome *outcome);

#endif
