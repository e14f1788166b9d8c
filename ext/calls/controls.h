/* The controls of OpenSSL, as Python calls them. */
#ifndef PYKEYUPDATE_CONTROLS_H
#define PYKEYUPDATE_CONTROLS_H

#include "calls/step.h"

/* Their functions of pykeyupdate._keyupdate, ended by a NULL entry. */
extern PyMethodDef ku_controls[];

#endif
