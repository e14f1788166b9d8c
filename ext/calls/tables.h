/* What C and Python must agree on, for Python to see. */
#ifndef PYKEYUPDATE_TABLES_H
#define PYKEYUPDATE_TABLES_H

#include <Python.h>

/* Add `tables`, a dict that tests compare, and the numbers that Python passes to C.
   Returns 0, or -1 with an exception. */
int ku_tables_add(PyObject *module);

#endif
