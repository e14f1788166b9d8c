/* Windows.

   The DLL's name does not identify it: libssl-3.dll, libssl-3-x64.dll,
   libssl-3-arm64.dll and libssl-1_1.dll are all in use, and two DLLs of one name can be
   loaded.  The import table of _ssl.pyd holds the addresses that the loader bound; the
   module that contains such an address is the one we want. */
#ifdef _WIN32

#  ifndef WIN32_LEAN_AND_MEAN
#    define WIN32_LEAN_AND_MEAN
#  endif
#  include <windows.h>

#  include "openssl/locate.h"

#  include <stddef.h>
#  include <string.h>

static HMODULE
module_at(const void *address, DWORD flags)
{
    HMODULE module = NULL;
    flags |= GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS;
    if (!GetModuleHandleExW(flags, (LPCWSTR)address, &module)) {
        return NULL;
    }
    return module;
}

/* The address that the loader wrote for `name` into this module's import table, or
   NULL. */
static const void *
bound_address(HMODULE module, const char *name)
{
    const char *base = (const char *)module;
    const IMAGE_DOS_HEADER *dos = (const IMAGE_DOS_HEADER *)base;
    const IMAGE_NT_HEADERS *nt = (const IMAGE_NT_HEADERS *)(base + dos->e_lfanew);
    const IMAGE_DATA_DIRECTORY *directory =
        &nt->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_IMPORT];
    if (directory->VirtualAddress == 0) {
        return NULL;
    }
    const IMAGE_IMPORT_DESCRIPTOR *import =
        (const IMAGE_IMPORT_DESCRIPTOR *)(base + directory->VirtualAddress);
    for (; import->Name != 0; import++) {
        if (import->OriginalFirstThunk == 0) {
            continue; /* bound without names: nothing to compare */
        }
        const IMAGE_THUNK_DATA *names =
            (const IMAGE_THUNK_DATA *)(base + import->OriginalFirstThunk);
        const IMAGE_THUNK_DATA *slots =
            (const IMAGE_THUNK_DATA *)(base + import->FirstThunk);
        for (; names->u1.AddressOfData != 0; names++, slots++) {
            if (IMAGE_SNAP_BY_ORDINAL(names->u1.Ordinal)) {
                continue;
            }
            const IMAGE_IMPORT_BY_NAME *entry =
                (const IMAGE_IMPORT_BY_NAME *)(base + names->u1.AddressOfData);
            if (strcmp((const char *)entry->Name, name) == 0) {
                return (const void *)(ULONG_PTR)slots->u1.Function;
            }
        }
    }
    return NULL;
}

/* The file name in UTF-8, Python's encoding of file names on Windows; "" if it is too
   long.  It is for people to read, and nothing depends on it. */
static void
name_file(struct ku_image *image, HMODULE module)
{
    WCHAR name[sizeof(image->path)];
    DWORD size = sizeof(name) / sizeof(name[0]);
    DWORD length = GetModuleFileNameW(module, name, size);
    if (length == 0 || length >= size
        || WideCharToMultiByte(CP_UTF8, 0, name, -1, image->path,
                               (int)sizeof(image->path), NULL, NULL)
               == 0) {
        image->path[0] = '\0';
    }
}

static void *
exported_function(const struct ku_image *image, const char *name)
{
    return (void *)(ULONG_PTR)GetProcAddress((HMODULE)image->handle, name);
}

enum ku_located
ku_locate(struct ku_image *image, void *anchor, const char *imported)
{
    HMODULE caller = module_at(anchor, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT);
    if (caller == NULL) {
        return KU_LOCATED_NOT_LOADED;
    }
    const void *bound = bound_address(caller, imported);
    HMODULE owner =
        module_at(bound != NULL ? bound : anchor, GET_MODULE_HANDLE_EX_FLAG_PIN);
    if (owner == NULL) {
        return KU_LOCATED_NOT_LOADED;
    }
    image->how = owner == caller ? "contained in the module that holds _ssl"
                                 : "the address in _ssl's own import table";
    image->base = (void *)owner;
    image->handle = (void *)owner;
    name_file(image, owner);
    return exported_function(image, imported) ? KU_LOCATED : KU_LOCATED_HIDDEN;
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
