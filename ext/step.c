#include "step.h"

#include "duplex.h"
#include "record.h"
#include "sslobject.h"

struct ku_outcome
ku_ok(int value)
{
    return (struct ku_outcome){.refusal = KU_OK, .value = value};
}

struct ku_outcome
ku_refused(enum ku_refusal refusal)
{
    return (struct ku_outcome){.refusal = refusal};
}

struct ku_outcome
ku_refused_because(enum ku_refusal refusal, const char *detail)
{
    return (struct ku_outcome){.refusal = refusal, .detail = detail};
}

void
ku_clear_errors(const struct ku_libssl *libssl)
{
    if (libssl->ERR_peek_last_error() != 0) {
        libssl->ERR_clear_error();
    }
}

struct ku_outcome
ku_failed_io(const struct ku_libssl *libssl, SSL *ssl)
{
    struct ku_outcome outcome = {.refusal = KU_IO};
    outcome.value = libssl->SSL_get_error(ssl, 0);
    outcome.error = libssl->ERR_peek_last_error();
    if (outcome.error != 0) {
        outcome.verify_result = libssl->SSL_get_verify_result(ssl);
        libssl->ERR_clear_error();
    }
    return outcome;
}

/* Of a managed SSLObject one thing is done at a time (object.c); to look is nothing. */
static struct ku_outcome
unless_busy(const struct ku_libssl *libssl, SSL *ssl, ku_step step, intptr_t argument,
            int looks)
{
    struct ku_record *record = ku_record_of(ssl);
    if (looks || record == NULL || record->is_shared) {
        return step(libssl, ssl, argument);
    }
    if (record->busy) {
        return ku_refused(KU_BUSY);
    }
    record->busy = 1;
    struct ku_outcome outcome = step(libssl, ssl, argument);
    record->busy = 0;
    return outcome;
}

static struct ku_outcome
held_step(ku_state *state, PyObject *sslobj, ku_step step, intptr_t argument, int looks)
{
    struct ku_outcome outcome;
    KU_HOLD(sslobj);
    PyThreadState *thread = state->keeps_gil ? NULL : PyEval_SaveThread();
    SSL *ssl = ku_sslobject_ssl(state, sslobj);
    outcome = ssl != NULL ? unless_busy(&state->libssl, ssl, step, argument, looks)
                          : ku_refused(KU_NO_POINTER);
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
    KU_RELEASE();
    return outcome;
}

enum manner { ACTS, QUIETLY, LOOKS };

static int
take_step(ku_state *state, const char *function, PyObject *conn, ku_step step,
          intptr_t argument, enum manner manner, int *value)
{
    PyObject *found = ku_sslobject_of(state, function, conn);
    if (found == NULL) {
        return -1;
    }
    struct ku_outcome outcome = {.refusal = KU_OK};
    if (Py_TYPE(found) != state->duplex_type) {
        outcome = held_step(state, found, step, argument, manner == LOOKS);
    }
    else if (ku_duplex_enter(state, found) == 0) {
        if (manner == QUIETLY) {
            ku_duplex_settle(state, found);
        }
        ku_duplex_in_openssl(found, 1);
        outcome = held_step(state, ku_duplex_inner(found), step, argument, 1);
        ku_duplex_in_openssl(found, -1);
        ku_duplex_leave(found);
    }
    Py_DECREF(found);
    /* A callback of the ssl module's, called by OpenSSL in a step that does a
       handshake, may leave its exception (_ssl of 3.15: msg_callback). */
    if (PyErr_Occurred()) {
        return -1;
    }
    *value = outcome.value;
    if (outcome.refusal == KU_OK) {
        return 0;
    }
    (void)ku_raise(state, &outcome, function, conn);
    return -1;
}

int
ku_take_step(ku_state *state, const char *function, PyObject *conn, ku_step step,
             intptr_t argument, int *value)
{
    return take_step(state, function, conn, step, argument, ACTS, value);
}

int
ku_take_quiet_step(ku_state *state, const char *function, PyObject *conn,
                   ku_step step, intptr_t argument, int *value)
{
    return take_step(state, function, conn, step, argument, QUIETLY, value);
}

int
ku_look(ku_state *state, const char *function, PyObject *conn, ku_step step,
        intptr_t argument, int *value)
{
    return take_step(state, function, conn, step, argument, LOOKS, value);
}
