/* read(length[, buffer]) as _ssl._SSLSocket has it, for whoever can fill memory. */
#ifndef PYKEYUPDATE_READING_H
#define PYKEYUPDATE_READING_H

#include <Python.h>

/* Fill some of `room` bytes, at least one unless it is the end: 0, or -1 with an
   exception. */
typedef int (*ku_fill)(void *argument, char *memory, size_t room, size_t *got);

/* bytes, or how many went into a buffer; no more than `most` bytes are made for one
   call, whatever it asks for. */
PyObject *ku_read(PyObject *const *arguments, Py_ssize_t count, size_t most,
                  ku_fill fill, void *argument);

#endif
