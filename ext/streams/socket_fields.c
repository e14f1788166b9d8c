#include "streams/socket_fields.h"

#include <math.h>

/* What follows the header of a PySocketSockObject (Modules/socketmodule.h), the same in
   CPython 3.9 to 3.15.  The timeout is in nanoseconds; if it is negative, the socket
   blocks. */
struct socket_prefix {
    ku_socket descriptor;
    int family, type, protocol;
    PyObject *(*error_handler)(void);
    int64_t timeout;
};

static const struct socket_prefix *
prefix_of(const ku_state *state, PyObject *socket)
{
    return (const struct socket_prefix *)((const char *)socket + state->head);
}

static int
ask(const ku_state *state, PyObject *socket, ku_socket *descriptor, double *timeout)
{
    PyObject *number = PyObject_CallFunctionObjArgs(state->fileno, socket, NULL);
    PyObject *seconds = NULL;
    if (number != NULL) {
        *descriptor = (ku_socket)PyLong_AsLongLong(number);
        Py_DECREF(number);
        seconds = PyObject_CallFunctionObjArgs(state->gettimeout, socket, NULL);
    }
    if (seconds != NULL) {
        *timeout = seconds == Py_None ? -1.0 : PyFloat_AsDouble(seconds);
        Py_DECREF(seconds);
    }
    return PyErr_Occurred() ? -1 : 0;
}

static void
look(const ku_state *state, PyObject *socket, ku_socket *descriptor, double *timeout)
{
    const struct socket_prefix *prefix = prefix_of(state, socket);
    *descriptor = prefix->descriptor;
    *timeout = prefix->timeout < 0 ? -1.0 : (double)prefix->timeout * 1e-9;
}

int
ku_socket_fields(const ku_state *state, PyObject *socket, ku_socket *descriptor,
                 double *timeout)
{
    if (!state->reads_socket_fields
        || !PyType_IsSubtype(Py_TYPE(socket), state->plain_socket_type)) {
        return ask(state, socket, descriptor, timeout);
    }
    look(state, socket, descriptor, timeout);
    return 0;
}

/* Set a timeout.  Returns 1 if we then see what the methods say, 0 if not, -1 with an
   exception. */
static int
sees_timeout(const ku_state *state, PyObject *socket, PyObject *value)
{
    ku_socket seen_descriptor, descriptor = KU_NO_SOCKET;
    double seen, timeout = 0.0;
    PyObject *done =
        value != NULL ? PyObject_CallMethod(socket, "settimeout", "O", value) : NULL;
    if (done == NULL || ask(state, socket, &descriptor, &timeout) < 0) {
        Py_XDECREF(done);
        return -1;
    }
    Py_DECREF(done);
    look(state, socket, &seen_descriptor, &seen);
    return seen_descriptor == descriptor && descriptor != KU_NO_SOCKET
           && fabs(seen - timeout) < 1e-6;
}

static int
sees_fields(const ku_state *state, PyObject *socket)
{
    PyObject *seconds = PyFloat_FromDouble(123456.75), *zero = PyLong_FromLong(0);
    int sees = sees_timeout(state, socket, Py_None);
    if (sees == 1) {
        sees = sees_timeout(state, socket, seconds);
    }
    if (sees == 1) {
        sees = sees_timeout(state, socket, zero);
    }
    Py_XDECREF(zero);
    Py_XDECREF(seconds);
    return sees;
}

static int
has_fields(const ku_state *state, PyObject *type)
{
    PyObject *size = PyObject_GetAttrString(type, "__basicsize__");
    Py_ssize_t bytes = size != NULL ? PyLong_AsSsize_t(size) : -1;
    Py_XDECREF(size);
    return bytes >= state->head + (Py_ssize_t)sizeof(struct socket_prefix);
}

/* Keeps an exception that is set. */
static void
close_quietly(PyObject *socket)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *closed = PyObject_CallMethod(socket, "close", NULL);
    Py_XDECREF(closed);
    PyErr_Clear();
    PyErr_Restore(type, value, traceback);
}

int
ku_socket_fields_prove(ku_state *state)
{
    PyObject *type = (PyObject *)state->plain_socket_type;
    PyObject *socket = has_fields(state, type) ? PyObject_CallObject(type, NULL) : NULL;
    if (socket != NULL) {
        state->reads_socket_fields = sees_fields(state, socket) == 1;
        close_quietly(socket);
        Py_DECREF(socket);
    }
    /* Nothing is wrong if this process may not have a socket. */
    if (PyErr_Occurred() && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
    }
    return PyErr_Occurred() ? -1 : 0;
}
