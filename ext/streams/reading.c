#include "streams/reading.h"

static PyObject *
read_bytes(Py_ssize_t length, size_t most, ku_fill fill, void *argument)
{
    if (length < 0) {
        PyErr_SetString(PyExc_ValueError, "size should not be negative");
        return NULL;
    }
    length = (size_t)length < most ? length : (Py_ssize_t)most;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, length);
    if (bytes == NULL || length == 0) {
        return bytes;
    }
    size_t got = 0;
    if (fill(argument, PyBytes_AsString(bytes), (size_t)length, &got) < 0) {
        Py_DECREF(bytes);
        return NULL;
    }
    if (got != (size_t)length) {
        _PyBytes_Resize(&bytes, (Py_ssize_t)got);
    }
    return bytes;
}

/* Accept the buffers that _ssl's read() takes ("w*"), and raise its TypeError for all
   others.  Returns 0, or -1 with an exception. */
static int
get_buffer(PyObject *buffer, Py_buffer *view)
{
    if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) == 0) {
        return 0;
    }
    if (PyErr_ExceptionMatches(PyExc_BufferError)
        || PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        PyErr_Format(PyExc_TypeError,
                     "read() argument 2 must be read-write bytes-like object, in one "
                     "piece, not %.100s",
                     Py_TYPE(buffer)->tp_name);
    }
    return -1;
}

static PyObject *
read_into(Py_ssize_t length, PyObject *buffer, ku_fill fill, void *argument)
{
    Py_buffer view;
    if (get_buffer(buffer, &view) < 0) {
        return NULL;
    }
    if (length <= 0 || length > view.len) {
        length = view.len;
    }
    size_t got = 0;
    int result = length > 0 ? fill(argument, view.buf, (size_t)length, &got) : 0;
    PyBuffer_Release(&view);
    return result == 0 ? PyLong_FromSize_t(got) : NULL;
}

PyObject *
ku_read(PyObject *const *arguments, Py_ssize_t count, size_t most, ku_fill fill,
        void *argument)
{
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "read() takes a length and maybe a buffer");
        return NULL;
    }
    Py_ssize_t length = PyNumber_AsSsize_t(arguments[0], PyExc_OverflowError);
    if (length == -1 && PyErr_Occurred()) {
        return NULL;
    }
    return count == 1 ? read_bytes(length, most, fill, argument)
                      : read_into(length, arguments[1], fill, argument);
}
