/* pykeyupdate._keyupdate.ManagedSocket: what a managed socket has in C.

   ssl.SSLSocket has its methods in Python, each around one call of `_sslobj`.  Those that
   move data are here in C, and ask whom ssl's code would ask: recv() calls the read() of
   the object, which a program may have replaced, and sendall() its send().  Everything but
   the common case is left to ssl's own code: flags, keywords, a derived class, a socket
   without TLS.

   ssl's code sets `_sslobj` to an _ssl._SSLSocket, which is over a socket.  What is set
   instead is the Duplex that `_over_memory()` makes (pykeyupdate/_managed_classes.py). */
#include "streams/socket_methods.h"

#include "openssl/constants.h"
#include "openssl/errors.h"
#include "streams/duplex.h"

#include <structmember.h>

#define WITH_CLASS(function) (PyCFunction)(void (*)(void)) function
#define WITH_CLASS_FLAGS (METH_METHOD | METH_FASTCALL | METH_KEYWORDS)

/* --- the inner object ------------------------------------------------------------- */

/* A new reference to the Duplex of a socket; NULL, without an exception, if this is not
   the common case. */
static PyObject *
duplex_of(const ku_state *state, PyObject *self)
{
    if ((PyObject *)Py_TYPE(self) != state->managed_class) {
        return NULL;
    }
    PyMemberDescrObject *slot = (PyMemberDescrObject *)state->sslobj_slot;
    PyObject *duplex = PyMember_GetOne((char *)self, slot->d_member);
    if (duplex == NULL) {
        PyErr_Clear();
    }
    else if (Py_TYPE(duplex) != state->duplex_type) {
        Py_CLEAR(duplex);
    }
    return duplex;
}

static int
set_attribute(PyObject *self, PyObject *name, PyObject *value)
{
    if (value == NULL || value == Py_None
        || !PyUnicode_Check(name) /* object.__setattr__() refuses it */
        || PyUnicode_CompareWithASCIIString(name, "_sslobj") != 0) {
        return PyObject_GenericSetAttr(self, name, value);
    }
    PyObject *duplex = PyObject_CallMethod(self, "_over_memory", NULL);
    int result = duplex != NULL ? PyObject_GenericSetAttr(self, name, duplex) : -1;
    Py_XDECREF(duplex);
    return result;
}

/* set_socket_class(cls, slot): which class has these methods, and where it keeps its
   `_sslobj`. */
static PyObject *
py_set_socket_class(PyObject *module, PyObject *args)
{
    ku_state *state = PyModule_GetState(module);
    PyObject *class, *slot;
    if (!PyArg_ParseTuple(args, "O!O!", &PyType_Type, &class, &PyMemberDescr_Type,
                          &slot)) {
        return NULL;
    }
    PyMemberDescrObject *member = (PyMemberDescrObject *)slot;
    if (member->d_common.d_type != (PyTypeObject *)class
        || member->d_member->type != T_OBJECT_EX) {
        PyErr_SetString(PyExc_TypeError, "set_socket_class(cls, one of its __slots__)");
        return NULL;
    }
    Py_INCREF(class);
    Py_XSETREF(state->managed_class, class);
    Py_INCREF(slot);
    Py_XSETREF(state->sslobj_slot, slot);
    Py_RETURN_NONE;
}

PyMethodDef ku_socket_class[] = {
    {"set_socket_class", py_set_socket_class, METH_VARARGS,
     "set_socket_class($module, cls, slot, /)\n--\n\n"
     "Say which class derives from ManagedSocket, and where it keeps its _sslobj."},
    {NULL, NULL, 0, NULL},
};

/* --- the methods ------------------------------------------------------------------ */

/* ssl's own method, with the arguments as given. */
static PyObject *
call_of_ssl(const ku_state *state, const char *name, PyObject *self,
            PyObject *const *given, Py_ssize_t count, PyObject *keywords)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)state->socket_type, name);
    Py_ssize_t all = count + (keywords != NULL ? PyTuple_GET_SIZE(keywords) : 0);
    PyObject **arguments =
        method != NULL ? PyMem_New(PyObject *, (size_t)all + 1) : NULL;
    PyObject *result = NULL;
    if (arguments != NULL) {
        arguments[0] = self;
        for (Py_ssize_t i = 0; i < all; i++) {
            arguments[i + 1] = given[i];
        }
        result = PyObject_Vectorcall(method, arguments, (size_t)count + 1, keywords);
        PyMem_Free(arguments);
    }
    else if (method != NULL) {
        PyErr_NoMemory();
    }
    Py_XDECREF(method);
    return result;
}

/* The end of the stream without a close_notify, which ssl's read() ignores if the
   program has not said otherwise.  Returns 1 if it is that, and clears the exception. */
static int
is_suppressed(ku_state *state, PyObject *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    PyObject *class = PyObject_GetAttrString(state->ssl, "SSLEOFError");
    PyObject *suppresses = class != NULL && PyErr_GivenExceptionMatches(value, class)
                               ? PyObject_GetAttrString(self, "suppress_ragged_eofs")
                               : NULL;
    int suppressed = suppresses != NULL ? PyObject_IsTrue(suppresses) : 0;
    Py_XDECREF(class);
    Py_XDECREF(suppresses);
    PyErr_Clear();
    if (suppressed > 0) {
        Py_XDECREF(type);
        Py_XDECREF(value);
        Py_XDECREF(traceback);
        return 1;
    }
    PyErr_Restore(type, value, traceback);
    return 0;
}

static PyObject *
socket_read(PyObject *self, PyTypeObject *defining, PyObject *const *given,
            Py_ssize_t count, PyObject *keywords)
{
    ku_state *state = PyType_GetModuleState(defining);
    PyObject *duplex = keywords == NULL && count <= 2 ? duplex_of(state, self) : NULL;
    if (duplex == NULL) {
        return call_of_ssl(state, "read", self, given, count, keywords);
    }
    PyObject *length = count > 0 ? given[0] : state->read_length;
    PyObject *buffer = count > 1 && given[1] != Py_None ? given[1] : NULL;
    PyObject *arguments[] = {length, buffer};
    PyObject *result = ku_duplex_read(duplex, arguments, buffer != NULL ? 2 : 1);
    Py_DECREF(duplex);
    if (result == NULL && PyErr_Occurred() && is_suppressed(state, self)) {
        return buffer != NULL ? PyLong_FromLong(0) : PyBytes_FromStringAndSize("", 0);
    }
    return result;
}

static PyObject *
socket_recv(PyObject *self, PyTypeObject *defining, PyObject *const *given,
            Py_ssize_t count, PyObject *keywords)
{
    ku_state *state = PyType_GetModuleState(defining);
    PyObject *duplex = keywords == NULL && count <= 1 ? duplex_of(state, self) : NULL;
    if (duplex == NULL) {
        return call_of_ssl(state, "recv", self, given, count, keywords);
    }
    Py_DECREF(duplex);
    PyObject *arguments[] = {self, count > 0 ? given[0] : state->read_length};
    return PyObject_VectorcallMethod(state->read_name, arguments, 2, NULL);
}

static PyObject *
socket_recv_into(PyObject *self, PyTypeObject *defining, PyObject *const *given,
                 Py_ssize_t count, PyObject *keywords)
{
    ku_state *state = PyType_GetModuleState(defining);
    int is_common = keywords == NULL && count == 2 && given[1] != Py_None;
    PyObject *duplex = is_common ? duplex_of(state, self) : NULL;
    if (duplex == NULL) {
        return call_of_ssl(state, "recv_into", self, given, count, keywords);
    }
    Py_DECREF(duplex);
    PyObject *arguments[] = {self, given[1], given[0]};
    return PyObject_VectorcallMethod(state->read_name, arguments, 3, NULL);
}

static PyObject *
write_as(const char *name, PyObject *self, PyTypeObject *defining,
         PyObject *const *given, Py_ssize_t count, PyObject *keywords)
{
    ku_state *state = PyType_GetModuleState(defining);
    PyObject *duplex = keywords == NULL && count == 1 ? duplex_of(state, self) : NULL;
    if (duplex == NULL) {
        return call_of_ssl(state, name, self, given, count, keywords);
    }
    PyObject *result = ku_duplex_write(duplex, given[0]);
    Py_DECREF(duplex);
    return result;
}

static PyObject *
socket_write(PyObject *self, PyTypeObject *defining, PyObject *const *given,
             Py_ssize_t count, PyObject *keywords)
{
    return write_as("write", self, defining, given, count, keywords);
}

static PyObject *
socket_send(PyObject *self, PyTypeObject *defining, PyObject *const *given,
            Py_ssize_t count, PyObject *keywords)
{
    return write_as("send", self, defining, given, count, keywords);
}

/* Is an object's method the one that it has from our class?  A program may have replaced
   it in the class or in the object.  Returns -1 with an exception. */
static int
has_own_send(const ku_state *state, PyObject *self)
{
    PyObject *send = PyObject_GetAttr(self, state->send_name);
    int own = send == NULL
                  ? -1
                  : PyCFunction_Check(send)
                        && PyCFunction_GET_FUNCTION(send) == WITH_CLASS(socket_send);
    Py_XDECREF(send);
    return own;
}

/* Of other data, only memoryview() knows how many bytes it is. */
static int
is_some_data(PyObject *data)
{
    return (PyBytes_CheckExact(data) && PyBytes_GET_SIZE(data) > 0)
           || (PyByteArray_CheckExact(data) && PyByteArray_GET_SIZE(data) > 0);
}

/* One write takes all data, or raises. */
static PyObject *
socket_sendall(PyObject *self, PyTypeObject *defining, PyObject *const *given,
               Py_ssize_t count, PyObject *keywords)
{
    ku_state *state = PyType_GetModuleState(defining);
    int is_common = keywords == NULL && count == 1 && is_some_data(given[0]);
    PyObject *duplex = is_common ? duplex_of(state, self) : NULL;
    int own = duplex != NULL ? has_own_send(state, self) : 0;
    PyObject *result = NULL;
    if (own > 0) {
        PyObject *sent = ku_duplex_write(duplex, given[0]);
        result = sent != NULL ? Py_None : NULL;
        Py_XINCREF(result);
        Py_XDECREF(sent);
    }
    else if (own == 0) {
        result = call_of_ssl(state, "sendall", self, given, count, keywords);
    }
    Py_XDECREF(duplex);
    return result;
}

/* --- the type --------------------------------------------------------------------- */

#define KU_AS_SSL(name, signature)                                                     \
    {#name, WITH_CLASS(socket_##name), WITH_CLASS_FLAGS,                               \
     #name "($self, " signature ")\n--\n\nAs ssl.SSLSocket." #name "(), in C."}

static PyMethodDef methods[] = {
    KU_AS_SSL(read, "len=1024, buffer=None"),
    KU_AS_SSL(recv, "buflen=1024, flags=0"),
    KU_AS_SSL(recv_into, "buffer, nbytes=None, flags=0"),
    KU_AS_SSL(write, "data"),
    KU_AS_SSL(send, "data, flags=0"),
    KU_AS_SSL(sendall, "data, flags=0"),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_doc, "The methods of a managed socket that are in C."},
    {Py_tp_setattro, set_attribute},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "pykeyupdate._keyupdate.ManagedSocket",
    .basicsize = sizeof(PyObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

PyObject *
ku_socket_methods_type(PyObject *module)
{
    return PyType_FromModuleAndSpec(module, &spec, NULL);
}
