/* The five controls, and what decides whether they can be used. */
#ifndef PYKEYUPDATE_CONTROLS_H
#define PYKEYUPDATE_CONTROLS_H

#include <Python.h>

/* The functions of pykeyupdate._keyupdate, ended by a NULL entry. */
extern PyMethodDef ku_controls[];

#endif
