#ifndef PYKEYUPDATE_OBJECT_LOCK_H
#define PYKEYUPDATE_OBJECT_LOCK_H

#include <Python.h>

/* Lock an object (an _ssl._SSLSocket, or ours) in a critical section.  With a GIL the
   lock does nothing, and is not needed.  The macros do not exist before 3.13, nor in
   the limited API before 3.15; both of these always have a GIL (free-threaded builds
   before 3.15 have no limited API). */
#ifdef Py_BEGIN_CRITICAL_SECTION
#  define KU_LOCK_OBJECT(object)                                                       \
      (void)(object);                                                                  \
      Py_BEGIN_CRITICAL_SECTION(object)
#  define KU_UNLOCK_OBJECT() Py_END_CRITICAL_SECTION()
#else
#  define KU_LOCK_OBJECT(object)                                                       \
      (void)(object);                                                                  \
      {
#  define KU_UNLOCK_OBJECT() }
#endif

#endif
