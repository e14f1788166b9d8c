/* pykeyupdate._keyupdate: OpenSSL's key update and renegotiation controls for the
   connections of Python's ssl module.

   Theory of operation.  Python's ssl keeps an OpenSSL SSL* inside every
   ssl.SSLSocket and ssl.SSLObject and gives no access to it.  Three things are
   needed to use it from outside, and a file is about each:

     libssl.c     which of the process's libssl it belongs to (locate_*.c ask the
                  platform's loader), and the functions of that one;
     sslobject.c  where in the object it stands, and the proof that it does;
     controls.c   when it may be used: OpenSSL's functions accept calls at moments
                  at which they break the connection, or its secrecy.

   handshake.c has the steps that rekey() and its like are made of; step.c takes
   any call from the Python object to OpenSSL and back; errors.c turns what was
   refused into exceptions.  What is not one of ssl's own objects but holds one (a
   stream, a response) is looked into by pykeyupdate/_finding.py.

   A managed socket (pykeyupdate.SSLSocket) is one more thing: duplex.c is what it
   has in the place of ssl's own object, call.c how a call of it goes, pump.c how
   several threads use one connection and traffic.c who carries its bytes, on
   tlsbio.c (what OpenSSL reads and writes), wire.c (the socket), monitor.c,
   buffer.c and clock.c.

   And a managed connection, socket or object, looks after its keys: record.c is what
   is kept beside it and what its peer may do, policy.c when its keys are due,
   managed.c what Python sees of both, and object.c how an SSLObject reads and writes.

   This file puts them together at import: make a connection with _ssl, prove the
   layout on it without following a pointer, find libssl, and let that libssl
   confirm what was proved.  Where any of it does not hold, the import fails with
   the cause and a remedy, and nothing of a connection has been touched.

   Multi-phase, all state in the module: each (sub-)interpreter has its own _ssl
   types, and its own copy of this. */
#include "calls/controls.h"
#include "calls/handshake.h"
#include "calls/managed.h"
#include "keys/ledger.h"
#include "openssl/sslobject.h"
#include "streams/call.h"
#include "streams/duplex.h"
#include "streams/object.h"
#include "streams/tlsbio.h"

/* A new reference to module.name. */
static PyObject *
import_from(const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    PyObject *value = module != NULL ? PyObject_GetAttrString(module, name) : NULL;
    Py_XDECREF(module);
    return value;
}

/* pykeyupdate's own Python modules below this one, and ssl: imported first, for
   an interpreter without _ssl to say so in the usual way. */
static int
import_names(ku_state *state)
{
    state->sslobj_name = PyUnicode_InternFromString("_sslobj");
    state->partial = import_from("functools", "partial");
    PyObject *socket = import_from("_socket", "socket");
    if (socket != NULL) {
        state->fileno = PyObject_GetAttrString(socket, "fileno");
        state->gettimeout = PyObject_GetAttrString(socket, "gettimeout");
        Py_DECREF(socket);
    }
    state->ssl = PyImport_ImportModule("ssl");
    state->errors = PyImport_ImportModule("pykeyupdate._errors");
    if (state->errors != NULL) {
        state->find = import_from("pykeyupdate._finding", "find_connection");
    }
    int complete = state->sslobj_name != NULL && state->fileno != NULL
                   && state->gettimeout != NULL && state->partial != NULL
                   && state->ssl != NULL && state->find != NULL;
    return complete ? 0 : -1;
}

/* What managed connections ask and tell. */
static int
import_managed_names(ku_state *state)
{
    state->impossible = import_from("pykeyupdate._policy", "act_on_impossible");
    if (state->impossible != NULL) {
        state->happened = import_from("pykeyupdate._events", "tell_events");
    }
    state->read_length = PyLong_FromLong(1024);
    return state->happened != NULL && state->read_length != NULL ? 0 : -1;
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
            "with the output of `python -m pykeyupdate doctor`.");
    }
    else if (found != NULL) {
        result = PyObject_SetAttrString(module, "libssl", found);
    }
    Py_XDECREF(found);
    Py_XDECREF(probe);
    return result;
}

static int
add_types(PyObject *module, ku_state *state)
{
    state->bio_method = ku_tlsbio_method(&state->libssl);
    if (state->bio_method == NULL || ku_watch_forks() < 0
        || ku_ledger_prepare(&state->libssl) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    PyObject *object = ku_object_type(module);
    int result =
        object != NULL ? PyObject_SetAttrString(module, "ManagedObject", object) : -1;
    Py_XDECREF(object);
    state->duplex_type = (PyTypeObject *)ku_duplex_type(module);
    return result == 0 && state->duplex_type != NULL
               ? PyObject_SetAttrString(module, "Duplex",
                                        (PyObject *)state->duplex_type)
               : -1;
}

/* _ssl's callbacks take the GIL by PyGILState_Ensure(), which before 3.12 takes it for
   the main interpreter: in another one it waits for ever while this thread has it. */
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
    if (import_names(state) < 0 || import_managed_names(state) < 0
        || import_update_types(module, state) < 0) {
        return -1;
    }
    PyObject *_ssl = PyImport_ImportModule("_ssl");
    if (_ssl == NULL) {
        return -1;
    }
    int result = bind_and_prove(module, state, _ssl);
    Py_DECREF(_ssl);
    return result == 0 && add_types(module, state) == 0
                   && PyModule_AddFunctions(module, ku_handshake) == 0
               ? PyModule_AddFunctions(module, ku_managed)
               : -1;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    ku_state *state = PyModule_GetState(module);
    Py_VISIT(state->sslobject_type);
    Py_VISIT(state->ssl);
    Py_VISIT(state->errors);
    Py_VISIT(state->find);
    Py_VISIT(state->partial);
    Py_VISIT(state->fileno);
    Py_VISIT(state->gettimeout);
    Py_VISIT(state->impossible);
    Py_VISIT(state->happened);
    Py_VISIT(state->duplex_type);
    for (int i = 0; i < 3; i++) {
        Py_VISIT(state->update_types[i]);
    }
    return 0;
}

static int
module_clear(PyObject *module)
{
    ku_state *state = PyModule_GetState(module);
    Py_CLEAR(state->sslobject_type);
    Py_CLEAR(state->sslobj_name);
    Py_CLEAR(state->ssl);
    Py_CLEAR(state->errors);
    Py_CLEAR(state->find);
    Py_CLEAR(state->partial);
    Py_CLEAR(state->fileno);
    Py_CLEAR(state->gettimeout);
    Py_CLEAR(state->impossible);
    Py_CLEAR(state->happened);
    Py_CLEAR(state->read_length);
    Py_CLEAR(state->duplex_type);
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
