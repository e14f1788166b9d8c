/* macOS.

   Mach-O libraries are bound in a two-level namespace: each undefined symbol of _ssl
   names the library that it comes from, so another OpenSSL in the process cannot get in
   between.  dlsym() on _ssl's own handle searches _ssl and then its dependencies, and
   so returns what _ssl itself calls. */
#ifdef __APPLE__

#  include "openssl/locate.h"

#  include <dlfcn.h>
#  include <stddef.h>
#  include <string.h>

static void *
open_image(const char *path)
{
    return dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

enum ku_located
ku_locate(struct ku_image *image, void *anchor, const char *imported)
{
    Dl_info caller, owner;
    if (!dladdr(anchor, &caller)) {
        return KU_LOCATED_NOT_LOADED;
    }
    void *handle = open_image(caller.dli_fname);
    if (handle == NULL) {
        return KU_LOCATED_NOT_LOADED;
    }
    void *function = dlsym(handle, imported);
    if (function == NULL || !dladdr(function, &owner)) {
        return KU_LOCATED_HIDDEN;
    }
    image->how = owner.dli_fbase == caller.dli_fbase
                     ? "contained in the object that holds _ssl"
                     : "the library that _ssl is linked to";
    image->base = owner.dli_fbase;
    image->handle = open_image(owner.dli_fname);
    strlcpy(image->path, owner.dli_fname, sizeof(image->path));
    return image->handle != NULL ? KU_LOCATED : KU_LOCATED_NOT_LOADED;
}

static void *
exported_function(const struct ku_image *image, const char *name)
{
    Dl_info owner;
    void *function = dlsym(image->handle, name);
    if (function == NULL || !dladdr(function, &owner)
        || owner.dli_fbase != image->base) {
        return NULL;
    }
    return function;
}

const char *
ku_locate_functions(const struct ku_image *image, struct ku_function *functions,
                    size_t count)
{
    for (size_t i = 0; i < count; i++) {
        functions[i].address = exported_function(image, functions[i].name);
    }
    return NULL;
}

#endif
