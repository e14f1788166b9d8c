/* What C and Python must agree on, as Python sees it. */
#ifndef PYKEYUPDATE_TABLES_H
#define PYKEYUPDATE_TABLES_H

#include <Python.h>

/* Add `tables`, a dict that tests compare, and the numbers that Python passes; 0, or -1
   with an exception. */
int ku_tables_add(PyObject *module);

#endif
