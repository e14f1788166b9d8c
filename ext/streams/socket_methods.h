/* The methods of ssl.SSLSocket that move data, in C. */
#ifndef PYKEYUPDATE_SOCKET_METHODS_H
#define PYKEYUPDATE_SOCKET_METHODS_H

#include "openssl/module_state.h"

/* Make the type for a module.  Returns a new reference, or NULL with an exception. */
PyObject *ku_socket_methods_type(PyObject *module);

extern PyMethodDef ku_socket_class[];

#endif
