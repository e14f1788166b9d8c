/* What connections() and totals() need from C: a look at connections that any thread may
   be using. */
#ifndef PYKEYUPDATE_VIEWING_H
#define PYKEYUPDATE_VIEWING_H

#include <Python.h>

/* Make the type View for a module.  Returns a new reference, or NULL with an exception. */
PyObject *ku_view_type(PyObject *module);

/* The functions for pykeyupdate._keyupdate; the last entry is NULL. */
extern PyMethodDef ku_viewing[];

#endif
