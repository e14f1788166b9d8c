/* read(length[, buffer]) as _ssl._SSLSocket has it, given a function that fills
   memory. */
#ifndef PYKEYUPDATE_READING_H
#define PYKEYUPDATE_READING_H

#include <Python.h>

/* Fill at least one of `room` bytes, unless the data has ended; `got` becomes how many.
   Returns 0, or -1 with an exception. */
typedef int (*ku_fill)(void *argument, char *memory, size_t room, size_t *got);

/* Returns new bytes, or how many bytes went into the buffer; NULL with an exception.
   Makes at most `most` bytes in one call, whatever the call asks for. */
PyObject *ku_read(PyObject *const *arguments, Py_ssize_t count, size_t most,
                  ku_fill fill, void *argument);

#endif
