/* The reading and writing of a managed SSLObject, as a base class of it. */
#ifndef PYKEYUPDATE_OBJECT_H
#define PYKEYUPDATE_OBJECT_H

#include "openssl/module_state.h"

/* The type, made for a module; a new reference. */
PyObject *ku_object_type(PyObject *module);

#endif
