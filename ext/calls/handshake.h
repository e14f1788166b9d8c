/* Steps of a handshake, for rekey() and its like. */
#ifndef PYKEYUPDATE_HANDSHAKE_H
#define PYKEYUPDATE_HANDSHAKE_H

#include <Python.h>

/* Functions of pykeyupdate._keyupdate that only the package itself calls, ended
   by a NULL entry. */
extern PyMethodDef ku_handshake[];

#endif
