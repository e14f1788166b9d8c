/* Reading and writing of a managed SSLObject, as a base class of it. */
#ifndef PYKEYUPDATE_OBJECT_H
#define PYKEYUPDATE_OBJECT_H

#include "openssl/module_state.h"

/* Make the type for a module.  Returns a new reference, or NULL with an exception. */
PyObject *ku_object_type(PyObject *module);

#endif
