/* OpenSSL's controls, as Python calls them.  The preconditions that OpenSSL's own
   functions do not check are in keys/scheduling.c. */
#include "calls/controls.h"

#include "calls/docstrings.h"
#include "keys/scheduling.h"
#include "openssl/errors.h"

#include <string.h>

/* --- steps ------------------------------------------------------------------------ */

static struct ku_outcome
key_update_step(const struct ku_tls *tls)
{
    return ku_schedule_key_update(tls, (int)tls->argument);
}

static struct ku_outcome
get_key_update_type_step(const struct ku_tls *tls)
{
    if (tls->libssl->SSL_get_key_update_type == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_get_key_update_type");
    }
    return ku_ok(tls->libssl->SSL_get_key_update_type(tls->ssl));
}

static struct ku_outcome
renegotiate_step(const struct ku_tls *tls)
{
    return ku_schedule_renegotiation(tls, (int)tls->argument);
}

static struct ku_outcome
renegotiate_pending_step(const struct ku_tls *tls)
{
    if (tls->libssl->SSL_renegotiate_pending == NULL) {
        return ku_refused_because(KU_MISSING, "SSL_renegotiate_pending");
    }
    return ku_ok(tls->libssl->SSL_renegotiate_pending(tls->ssl));
}

/* SSL_get_secure_renegotiation_support() is a macro for this SSL_ctrl().  A TLS 1.3
   server returns 1 if the client offered it in case of TLS 1.2 (a client returns 0).
   Nothing was negotiated, so both ends say no here. */
static struct ku_outcome
secure_renegotiation_step(const struct ku_tls *tls)
{
    return ku_ok(tls->libssl->SSL_version(tls->ssl) <= TLS1_2_VERSION
                 && tls->libssl->SSL_ctrl(tls->ssl, SSL_CTRL_GET_RI_SUPPORT, 0, NULL)
                        == 1);
}

/* SSL_total_renegotiations() is a macro for this. */
static struct ku_outcome
total_renegotiations_step(const struct ku_tls *tls)
{
    return ku_ok((int)tls->libssl->SSL_ctrl(tls->ssl, SSL_CTRL_GET_TOTAL_RENEGOTIATIONS,
                                            0, NULL));
}

/* --- functions that Python calls -------------------------------------------------- */

static PyObject *
returning_bool(PyObject *module, const char *function, PyObject *conn, ku_step step,
               int argument)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step_anytime(state, function, conn, step, argument, &value) < 0) {
        return NULL;
    }
    return PyBool_FromLong(value);
}

/* The int of an update type that can be scheduled, or -1 with an exception
   (ValueError). */
static int
update_type_of(ku_state *state, PyObject *conn, PyObject *update_type)
{
    int overflow = 0;
    long value = -1;
    if (PyLong_Check(update_type)) {
        value = PyLong_AsLongAndOverflow(update_type, &overflow);
    }
    if (value == SSL_KEY_UPDATE_NOT_REQUESTED || value == SSL_KEY_UPDATE_REQUESTED) {
        return (int)value;
    }
    (void)ku_refuse_type(state, "key_update", conn, update_type);
    return -1;
}

static PyObject *
py_key_update(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "update_type", NULL};
    ku_state *state = PyModule_GetState(module);
    PyObject *conn, *update_type = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:key_update", names, &conn,
                                     &update_type)) {
        return NULL;
    }
    int type = SSL_KEY_UPDATE_NOT_REQUESTED;
    if (update_type != NULL) {
        type = update_type_of(state, conn, update_type);
    }
    int value;
    if (type < 0
        || ku_take_step(state, "key_update", conn, key_update_step, type, &value) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_get_key_update_type(PyObject *module, PyObject *conn)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step_anytime(state, "get_key_update_type", conn,
                             get_key_update_type_step, 0, &value)
        < 0) {
        return NULL;
    }
    if (value < SSL_KEY_UPDATE_NONE || value > SSL_KEY_UPDATE_REQUESTED) {
        /* KeyUpdateType(value) raises the ValueError for an unknown type. */
        return PyObject_CallFunction((PyObject *)Py_TYPE(state->update_types[0]), "i",
                                     value);
    }
    PyObject *member = state->update_types[value - SSL_KEY_UPDATE_NONE];
    Py_INCREF(member);
    return member;
}

static PyObject *
begin_renegotiation(PyObject *module, const char *function, PyObject *conn,
                    int abbreviated)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step(state, function, conn, renegotiate_step, abbreviated, &value)
        < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
py_renegotiate(PyObject *module, PyObject *conn)
{
    return begin_renegotiation(module, "renegotiate", conn, 0);
}

static PyObject *
py_renegotiate_abbreviated(PyObject *module, PyObject *conn)
{
    return begin_renegotiation(module, "renegotiate_abbreviated", conn, 1);
}

static PyObject *
py_renegotiate_pending(PyObject *module, PyObject *conn)
{
    return returning_bool(module, "renegotiate_pending", conn, renegotiate_pending_step,
                          0);
}

static PyObject *
py_secure_renegotiation(PyObject *module, PyObject *conn)
{
    return returning_bool(module, "secure_renegotiation", conn,
                          secure_renegotiation_step, 0);
}

static PyObject *
py_total_renegotiations(PyObject *module, PyObject *conn)
{
    int value;
    ku_state *state = PyModule_GetState(module);
    if (ku_take_step_anytime(state, "total_renegotiations", conn,
                             total_renegotiations_step, 0, &value)
        < 0) {
        return NULL;
    }
    return PyLong_FromLong(value);
}

/* PyMethodDef has one function type for all signatures; the flags tell them apart.
   Compilers accept a cast by way of void (*)(void) as intended. */
#define WITH_KEYWORDS(function) ((PyCFunction)(void (*)(void))(function))

PyMethodDef ku_controls[] = {
    {"key_update", WITH_KEYWORDS(py_key_update), METH_VARARGS | METH_KEYWORDS,
     key_update_doc},
    {"get_key_update_type", py_get_key_update_type, METH_O, get_key_update_type_doc},
    {"renegotiate", py_renegotiate, METH_O, renegotiate_doc},
    {"renegotiate_abbreviated", py_renegotiate_abbreviated, METH_O,
     renegotiate_abbreviated_doc},
    {"renegotiate_pending", py_renegotiate_pending, METH_O, renegotiate_pending_doc},
    {"secure_renegotiation", py_secure_renegotiation, METH_O, secure_renegotiation_doc},
    {"total_renegotiations", py_total_renegotiations, METH_O, total_renegotiations_doc},
    {NULL, NULL, 0, NULL},
};
