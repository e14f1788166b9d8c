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

/* Of a managed SSLObject one thing is done at a time (object.c): its record, or
   NULL. */
static struct ku_record *
guard_of(SSL *ssl)
{
    struct ku_record *record = ku_record_of(ssl);
    return record != NULL && !record->is_shared ? record : NULL;
}

static struct ku_outcome
without_gil_where_it_must(ku_state *state, SSL *ssl, ku_step step, intptr_t argument)
{
    PyThreadState *thread = state->keeps_gil ? NULL : PyEval_SaveThread();
    struct ku_outcome outcome = step(&state->libssl, ssl, argument);
    if (thread != NULL) {
        PyEval_RestoreThread(thread);
    }
    return outcome;
}

static struct ku_outcome
held_step(ku_state *state, PyObject *sslobj, ku_step step, intptr_t argument, int looks)
{
    struct ku_outcome outcome;
    KU_HOLD(sslobj);
    SSL *ssl = ku_sslobject_ssl(state, sslobj);
    struct ku_record *guard = ssl != NULL && !looks ? guard_of(ssl) : NULL;
    if (ssl == NULL) {
        outcome = ku_refused(KU_NO_POINTER);
    }
    else if (guard == NULL) {
        outcome = without_gil_where_it_must(state, ssl, step, argument);
    }
    else if (guard->busy) {
        outcome = ku_refused(KU_BUSY);
    }
    else {
        guard->busy = 1;
        outcome = without_gil_where_it_must(state, ssl, step, argument);
        guard->busy = 0;
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
