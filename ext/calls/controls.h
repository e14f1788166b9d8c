/* OpenSSL's controls, as Python calls them. */
#ifndef PYKEYUPDATE_CONTROLS_H
#define PYKEYUPDATE_CONTROLS_H

#include "calls/step.h"

/* The functions for pykeyupdate._keyupdate; the last entry is NULL. */
extern PyMethodDef ku_controls[];

#endif
