/* Turns an outcome into a Python exception.  Everything here but ku_is_for_good() needs
   the GIL. */
#ifndef PYKEYUPDATE_ERRORS_H
#define PYKEYUPDATE_ERRORS_H

#include "openssl/outcome.h"
#include "openssl/module_state.h"

/* The text of the RuntimeError once module_clear() has cleared the module's state. */
#define KU_SHUTTING_DOWN "pykeyupdate: the interpreter is shutting down"

/* Is this refusal permanent on this connection? */
int ku_is_for_good(const struct ku_outcome *outcome);

/* A new list with a pair for each refusal: the exception's name, and whether the
   refusal is permanent.  NULL with an exception on failure. */
PyObject *ku_list_refusals(void);

/* A new reference to the text "reason; remedy", without the call and the connection. */
PyObject *ku_reason(ku_state *state, const struct ku_outcome *outcome);

/* Raise the exception for an outcome other than KU_OK.  Always returns NULL.  A
   refusal's message reads "function(connection): reason; remedy". */
PyObject *ku_raise(ku_state *state, const struct ku_outcome *outcome,
                   const char *function, PyObject *conn);

/* The same for a refusal that needs no detail. */
PyObject *ku_raise_refusal(ku_state *state, enum ku_refusal refusal,
                           const char *function, PyObject *conn);

/* Raise InvalidKeyUpdateTypeError (a ValueError) for a key update type that cannot be
   scheduled.  Always returns NULL. */
PyObject *ku_refuse_type(ku_state *state, const char *function, PyObject *conn,
                         PyObject *update_type);

/* Make this earlier exception the context of the exception that is set now, as the
   interpreter does in an `except` block.  Steals the three references. */
void ku_chain_exception(PyObject *type, PyObject *value, PyObject *traceback);

/* Like PyErr_Restore(), but an exception that is set now becomes the context of the
   restored one.  If `type` is NULL, nothing changes. */
void ku_restore_exception(PyObject *type, PyObject *value, PyObject *traceback);

#endif
