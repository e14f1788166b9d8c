#ifndef PYKEYUPDATE_OBJECT_LOCK_H
#define PYKEYUPDATE_OBJECT_LOCK_H

#include <Python.h>

/* Hold an _ssl._SSLSocket: a no-op under the GIL before 3.13, and in the limited API
   before 3.15 (which free-threaded builds before 3.15 lack). */
#ifdef Py_BEGIN_CRITICAL_SECTION
#  define KU_LOCK_OBJECT(sslobj) Py_BEGIN_CRITICAL_SECTION(sslobj)
#  define KU_UNLOCK_OBJECT() Py_END_CRITICAL_SECTION()
#else
#  define KU_LOCK_OBJECT(sslobj) {
#  define KU_UNLOCK_OBJECT() }
#endif

#endif
