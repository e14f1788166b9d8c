/* Why a call was refused, and how that becomes a Python exception. */
#ifndef PYKEYUPDATE_ERRORS_H
#define PYKEYUPDATE_ERRORS_H

#include "openssl/outcome.h"
#include "openssl/module_state.h"

/* Where module_clear() has been. */
#define KU_SHUTTING_DOWN "pykeyupdate: the interpreter is shutting down"

/* Will it be the same later on this connection? */
int ku_is_for_good(const struct ku_outcome *outcome);

/* Pairs of an exception's name and whether it is for good, one a refusal; a new list. */
PyObject *ku_refusals(void);

/* "reason; remedy", without the call and the connection; a new reference. */
PyObject *ku_reason(ku_state *state, const struct ku_outcome *outcome);

/* Set the exception for an outcome other than KU_OK; always returns NULL.
   Messages read "function(connection): reason; remedy". */
PyObject *ku_raise(ku_state *state, const struct ku_outcome *outcome,
                   const char *function, PyObject *conn);

/* The same for a refusal that needs no detail. */
PyObject *ku_refuse(ku_state *state, enum ku_refusal refusal, const char *function,
                    PyObject *conn);

/* ValueError for a key update type that cannot be scheduled; returns NULL. */
PyObject *ku_refuse_type(ku_state *state, const char *function, PyObject *conn,
                         PyObject *update_type);

/* As the interpreter does it in an `except`: the exception that is set stays, with this
   one, of before, as its context. */
void ku_chain_exception(PyObject *type, PyObject *value, PyObject *traceback);

/* As PyErr_Restore(); an exception that is set meanwhile becomes its context. */
void ku_restore_exception(PyObject *type, PyObject *value, PyObject *traceback);

#endif
