/* From what a program gives to its connection, or the refusal. */
#ifndef PYKEYUPDATE_FINDING_H
#define PYKEYUPDATE_FINDING_H

#include "openssl/module_state.h"

/* The _ssl._SSLSocket inside `conn`, or the Duplex that holds it, as a new reference,
   or NULL with an exception that names `function`.  May run Python code. */
PyObject *ku_find_sslobject(ku_state *state, const char *function, PyObject *conn);

#endif
