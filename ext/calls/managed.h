/* What manage(), stats() and the other functions for managed connections need from
   C. */
#ifndef PYKEYUPDATE_MANAGED_H
#define PYKEYUPDATE_MANAGED_H

#include <Python.h>

/* The functions for pykeyupdate._keyupdate; the last entry is NULL. */
extern PyMethodDef ku_managed[];

#endif
