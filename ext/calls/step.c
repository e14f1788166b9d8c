#include "calls/step.h"

#include "keys/notes.h"
#include "keys/opening.h"
#include "keys/telling.h"
#include "openssl/errors.h"
#include "openssl/finding.h"
#include "openssl/object_lock.h"
#include "openssl/sslobject.h"
#include "streams/callbacks.h"
#include "streams/duplex.h"

/* The ledger of a managed SSLObject, which one call at a time may occupy; NULL for any
   other connection. */
static struct ku_ledger *
object_ledger_of(const struct ku_tls *tls)
{
    return tls->ledger != NULL && !tls->ledger->is_shared ? tls->ledger : NULL;
}

static struct ku_outcome
without_gil_where_it_must(ku_state *state, const struct ku_tls *tls, ku_step step)
{
    PyThreadState *thread = state->keeps_gil ? NULL : PyEval_SaveThread();
    struct ku_outcome outcome = step(tls);
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
    return outcome;
}

static struct ku_outcome
held_step(ku_state *state, PyObject *sslobj, ku_step step, intptr_t argument, int looks)
{
    struct ku_outcome outcome = ku_refused(KU_NO_POINTER);
    struct ku_tls tls;
    KU_LOCK_OBJECT(sslobj);
    if (ku_ledger_tls(state, sslobj, &tls)) {
        struct ku_ledger *guard = looks ? NULL : object_ledger_of(&tls);
        outcome = guard != NULL ? ku_ledger_occupy(guard) : ku_ok(0);
        if (outcome.refusal == KU_OK) {
            tls.argument = argument;
            outcome = without_gil_where_it_must(state, &tls, step);
            if (guard != NULL) {
                ku_ledger_vacate(guard);
            }
        }
    }
    KU_UNLOCK_OBJECT();
    return outcome;
}

/* Set `value`, and raise the exception for the outcome of a step, unless a callback of
   the ssl module that OpenSSL called has already set one (_ssl of 3.15: _msg_callback).
   Returns 0, or -1 with an exception. */
static int
raise_outcome(ku_state *state, const struct ku_outcome *outcome, const char *function,
              PyObject *conn, int *value)
{
    *value = outcome->value;
    if (outcome->refusal != KU_OK && !PyErr_Occurred()) {
        (void)ku_raise(state, outcome, function, conn);
    }
    return PyErr_Occurred() ? -1 : 0;
}

static int
perform_step(ku_state *state, const char *function, PyObject *conn, ku_step step,
             intptr_t argument, int sent, int *value)
{
    PyObject *found = ku_find_sslobject(state, function, conn);
    int result = -1;
    if (found == NULL) {
        return -1;
    }
    if (Py_TYPE(found) == state->duplex_type) {
        result = ku_duplex_take_step(found, function, step, argument, sent, value);
    }
    else if (sent && !ku_sslobject_is_bio(state, found)) {
        ku_raise_refusal(state, KU_CLOSED, function,
                         conn); /* its managed socket is gone */
    }
    else {
        struct ku_outcome outcome = held_step(state, found, step, argument, 0);
        result = raise_outcome(state, &outcome, function, conn, value);
        int has = result == 0 && sent ? ku_has_callbacks(found) : 0;
        if (has != 0) {
            result = has > 0 ? ku_raise_callback_exception(state, found, 0) : -1;
        }
        result = ku_tell_events_of_object(state, found) == 0 ? result : -1;
    }
    Py_DECREF(found);
    return result;
}

int
ku_take_step(ku_state *state, const char *function, PyObject *conn, ku_step step,
             intptr_t argument, int *value)
{
    return perform_step(state, function, conn, step, argument, 0, value);
}

int
ku_take_step_and_send(ku_state *state, const char *function, PyObject *conn,
                      ku_step step, intptr_t argument, int *value)
{
    return perform_step(state, function, conn, step, argument, 1, value);
}

int
ku_take_step_anytime(ku_state *state, const char *function, PyObject *conn,
                     ku_step step, intptr_t argument, int *value)
{
    PyObject *found = ku_find_sslobject(state, function, conn);
    struct ku_outcome outcome = {.refusal = KU_OK};
    if (found == NULL) {
        return -1;
    }
    int result = 0;
    if (Py_TYPE(found) == state->duplex_type) {
        result = ku_duplex_look(found, function, step, argument, &outcome);
    }
    else {
        outcome = held_step(state, found, step, argument, 1);
    }
    Py_DECREF(found);
    return result == 0 ? raise_outcome(state, &outcome, function, conn, value) : -1;
}
