/* Finds the connection in the object that a program passes, or refuses the object. */
#ifndef PYKEYUPDATE_FINDING_H
#define PYKEYUPDATE_FINDING_H

#include "openssl/module_state.h"

/* Returns a new reference to the _ssl._SSLSocket inside `conn`, or to the Duplex that
   holds one; NULL with an exception that names `function` if there is none.  Needs the
   GIL and may run Python code. */
PyObject *ku_find_sslobject(ku_state *state, const char *function, PyObject *conn);

#endif
