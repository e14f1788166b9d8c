/* Managed connections as Python has them: what manage(), stats() and the like need of
   C. */
#ifndef PYKEYUPDATE_MANAGED_H
#define PYKEYUPDATE_MANAGED_H

#include <Python.h>

/* The functions of pykeyupdate._keyupdate about them, ended by a NULL entry. */
extern PyMethodDef ku_managed[];

#endif
