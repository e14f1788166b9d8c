/* pykeyupdate._keyupdate: OpenSSL's key update and renegotiation controls for the
   connections of Python's ssl module.

   Theory of operation.  Python's ssl keeps an OpenSSL SSL* in every ssl.SSLSocket and
   ssl.SSLObject, and gives no access to it.  OpenSSL's functions accept calls at
   moments when they break the connection, or its secrecy.  So we find the SSL*, prove
   it, check the moment, and then call.  The sources are five folders, and each includes
   only its own files and those of the folders before it:

     system/   locks, buffers, deadlines, sockets, fork().
     openssl/  which libssl _ssl uses (libssl.c; locate_*.c ask the loader); where an
               object has its SSL*, and the proof (sslobject.c; streams and responses
               are searched by pykeyupdate/_finding.py); what OpenSSL says of a
               connection (questions.c, states.c); refusals (refusals.h, errors.c).
     keys/     when keys may change (scheduling.c) and when they must (policy.c); the
               ledger beside a managed connection (ledger.h), what OpenSSL reports to
               it (reports.c), and what a peer may do (peer_limits.c).
     streams/  managed connections.  A socket: duplex.c stands in for ssl's object,
               pump.c drives OpenSSL, threads.c shares it, traffic.c moves bytes.
               An SSLObject: object.c.
     calls/    what Python calls: controls.c, rekeying.c for rekey() and its like, and
               managed.c.  step.h shows a call's way to OpenSSL: begin there.

   This file puts them together at import: make a connection with _ssl, prove the layout
   on it without following a pointer, find libssl, and let that libssl confirm the
   proof.  If any of this fails, the import fails with the cause and a remedy, and no
   connection of a program has been touched.

   Multi-phase initialization, all state in the module: each (sub-)interpreter has its
   own _ssl types, and its own copy of this. */
#include "calls/controls.h"
#include "calls/managed.h"
#include "calls/rekeying.h"
#include "calls/tables.h"
#include "calls/viewing.h"
#include "keys/opening.h"
#include "openssl/sslobject.h"
#include "openssl/states.h"
#include "streams/duplex.h"
#include "streams/object.h"
#include "streams/socket_fields.h"
#include "streams/socket_methods.h"
#include "streams/tlsbio.h"
#include "system/forks.h"

/* A new reference to module.name, or NULL with an exception. */
static PyObject *
import_from(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return value;
}

/* The modules that we use: ssl, and those of pykeyupdate that do not need this one.
   They are imported first, so that an interpreter without _ssl fails in the usual
   way. */
static int
import_names(ku_state *state)
{
    state->sslobj_name = PyUnicode_InternFromString("_sslobj");
    state->partial = import_from("functools", "partial");
    PyObject *socket = import_from("_socket", "socket");
    if (socket != NULL) {
        state->fileno = PyObject_GetAttrString(socket, "fileno");
        state->gettimeout = PyObject_GetAttrString(socket, "gettimeout");
        state->detach = PyObject_GetAttrString(socket, "detach");
        state->plain_socket_type = (PyTypeObject *)socket;
    }
    state->ssl = PyImport_ImportModule("ssl");
    state->errors = PyImport_ImportModule("pykeyupdate._errors");
    if (state->errors != NULL) {
        state->find_connection = import_from("pykeyupdate._finding", "find_connection");
    }
    if (state->find_connection != NULL) {
        state->stored = import_from("pykeyupdate._static_lookup", "stored_attribute");
        state->socket_type = (void *)import_from("pykeyupdate._originals", "SOCKET");
        state->object_type = (void *)import_from("pykeyupdate._originals", "OBJECT");
    }
    int complete = state->sslobj_name != NULL && state->fileno != NULL
                   && state->gettimeout != NULL && state->detach != NULL
                   && state->partial != NULL && state->ssl != NULL
                   && state->stored != NULL && state->socket_type != NULL
                   && state->object_type != NULL;
    return complete ? 0 : -1;
}

/* What managed connections ask, and what they report to. */
static int
import_managed_names(ku_state *state)
{
    state->act_on_impossible = import_from("pykeyupdate._policy", "act_on_impossible");
    if (state->act_on_impossible != NULL) {
        state->tell_events = import_from("pykeyupdate._events", "tell_events");
    }
    if (state->tell_events != NULL) {
        state->event_handlers = import_from("pykeyupdate._events", "registered");
    }
    state->read_length = PyLong_FromLong(1024);
    state->read_name = PyUnicode_InternFromString("read");
    state->send_name = PyUnicode_InternFromString("send");
    return state->event_handlers != NULL && state->read_length != NULL
                   && state->read_name != NULL && state->send_name != NULL
               ? 0
               : -1;
}

/* What errors.c raises most. */
static int
import_want_read(ku_state *state)
{
    state->want_read = PyObject_GetAttrString(state->ssl, "SSLWantReadError");
    state->want_read_args = Py_BuildValue("(is)", SSL_ERROR_WANT_READ,
                                          "The operation did not complete (read)");
    state->library_name = PyUnicode_InternFromString("library");
    state->reason_name = PyUnicode_InternFromString("reason");
    return state->want_read != NULL && state->want_read_args != NULL
                   && state->library_name != NULL && state->reason_name != NULL
               ? 0
               : -1;
}

static int
import_update_types(PyObject *module, ku_state *state)
{
    PyObject *type = import_from("pykeyupdate._constants", "KeyUpdateType");
    int result = type != NULL ? 0 : -1;
    for (int i = 0; i < 3 && result == 0; i++) {
        state->update_types[i] = PyObject_CallFunction(type, "i", i - 1);
        result = state->update_types[i] != NULL ? 0 : -1;
    }
    if (result == 0) {
        result = PyObject_SetAttrString(module, "KeyUpdateType", type);
    }
    Py_XDECREF(type);
    return result;
}

static int
bind_and_prove(PyObject *module, ku_state *state, PyObject *_ssl)
{
    PyObject *probe = ku_sslobject_probe(state, _ssl);
    PyObject *found = probe != NULL ? ku_libssl_bind(&state->libssl, _ssl) : NULL;
    int result = -1;
    if (found != NULL && ku_sslobject_ssl(state, probe) == NULL) {
        PyErr_SetString(
            PyExc_ImportError,
            "pykeyupdate cannot work here: the OpenSSL that was found does not "
            "know the connections of this Python's ssl module. Please report it "
            "with the output of `python -m pykeyupdate doctor`. (In the sources: "
            "ext/openssl/sslobject.c, ku_sslobject_ssl().)");
    }
    else if (found != NULL) {
        result = PyObject_SetAttrString(module, "libssl", found);
    }
    Py_XDECREF(found);
    Py_XDECREF(probe);
    return result;
}

/* Returns True, or False if there are names and this OpenSSL cannot make a connection on
   which to prove them. */
static PyObject *
py_prove_states(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    PyObject *_ssl = PyImport_ImportModule("_ssl");
    int proved = _ssl != NULL ? ku_states_prove(PyModule_GetState(module), _ssl) : -1;
    Py_XDECREF(_ssl);
    return proved >= 0 ? PyBool_FromLong(proved) : NULL;
}

static PyObject *
py_addresses(PyObject *module, PyObject *ignored)
{
    (void)ignored;
    ku_state *state = PyModule_GetState(module);
    return ku_libssl_addresses(&state->libssl);
}

static PyMethodDef proofs[] = {
    {"addresses", py_addresses, METH_NOARGS,
     "addresses($module, /)\n--\n\n"
     "Return the addresses of OpenSSL's functions by name; 0 if one is missing."},
    {"prove_states", py_prove_states, METH_NOARGS,
     "prove_states($module, /)\n--\n\n"
     "Prove the states of OpenSSL, as at import."},
    {NULL, NULL, 0, NULL},
};

/* Steals `type`. */
static int
add_type(PyObject *module, const char *name, PyObject *type)
{
    int result = type != NULL ? PyObject_SetAttrString(module, name, type) : -1;
    Py_XDECREF(type);
    return result;
}

static int
add_types(PyObject *module, ku_state *state)
{
    state->bio_method = ku_tlsbio_method(&state->libssl);
    if (state->bio_method == NULL || ku_forks_count() < 0
        || ku_ledger_prepare(&state->libssl) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    state->duplex_type = (PyTypeObject *)ku_duplex_type(module);
    PyObject *duplex = (PyObject *)state->duplex_type;
    Py_XINCREF(duplex);
    state->view_type = (PyTypeObject *)ku_view_type(module);
    PyObject *view = (PyObject *)state->view_type;
    Py_XINCREF(view);
    return add_type(module, "Duplex", duplex) == 0
                   && add_type(module, "View", view) == 0
                   && add_type(module, "ManagedObject", ku_object_type(module)) == 0
                   && add_type(module, "ManagedSocket", ku_socket_methods_type(module))
                          == 0
                   && PyModule_AddFunctions(module, ku_socket_class) == 0
                   && PyModule_AddIntConstant(module, "reads_socket_fields",
                                              state->reads_socket_fields)
                          == 0
               ? 0
               : -1;
}

/* _ssl's callbacks take the GIL with PyGILState_Ensure(), which before 3.12 takes it
   for the main interpreter.  In any other interpreter it waits forever if this thread
   holds the GIL. */
static int
may_keep_gil(void)
{
    return PY_VERSION_HEX >= 0x030c0000
           || PyInterpreterState_GetID(PyInterpreterState_Get()) == 0;
}

static int
module_exec(PyObject *module)
{
    ku_state *state = PyModule_GetState(module);
    state->keeps_gil = may_keep_gil();
    if (import_names(state) < 0 || import_want_read(state) < 0
        || import_managed_names(state) < 0 || import_update_types(module, state) < 0) {
        return -1;
    }
    PyObject *_ssl = PyImport_ImportModule("_ssl");
    if (_ssl == NULL) {
        return -1;
    }
    int result = bind_and_prove(module, state, _ssl);
    result = result == 0 && ku_states_prove(state, _ssl) >= 0
                     && ku_socket_fields_prove(state) == 0
                 ? 0
                 : -1;
    Py_DECREF(_ssl);
    return result == 0 && add_types(module, state) == 0
                   && PyModule_AddFunctions(module, proofs) == 0
                   && ku_tables_add(module) == 0
                   && PyModule_AddFunctions(module, ku_rekeying) == 0
                   && PyModule_AddFunctions(module, ku_managed) == 0
               ? PyModule_AddFunctions(module, ku_viewing)
               : -1;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ku_state *state = PyModule_GetState(module);
#define KU_VISIT(type, name) Py_VISIT(state->name);
    KU_STATE_OBJECTS(KU_VISIT)
#undef KU_VISIT
    for (int i = 0; i < 3; i++) {
        Py_VISIT(state->update_types[i]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    ku_state *state = PyModule_GetState(module);
#define KU_CLEAR(type, name) Py_CLEAR(state->name);
    KU_STATE_OBJECTS(KU_CLEAR)
#undef KU_CLEAR
    for (int i = 0; i < 3; i++) {
        Py_CLEAR(state->update_types[i]);
    }
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters /* 3.12 */
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#ifdef Py_mod_gil /* 3.13 */
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pykeyupdate._keyupdate",
    .m_doc = "OpenSSL's key update and renegotiation controls for the connections "
             "of Python's ssl module. Use them from the package pykeyupdate.",
    .m_size = sizeof(ku_state),
    .m_methods = ku_controls,
    .m_slots = slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__keyupdate(void)
{
    return PyModuleDef_Init(&definition);
}
