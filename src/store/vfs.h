/* vfs.h: inner header of the room: the VFS that SQLite sees, one per open silo.
 *
 * SQLite may open two files, the database and its WAL, both of this silo, whatever names it gives;
 * everything else (rollback journals, temporary files, other databases) is refused. */
#pragma once

#include "store/files.h"

#include <sqlite3.h>

/* To be registered under that name; both are borrowed for as long. With files NULL it only gives
 * randomness and time, and opens nothing: the process's default. */
sqlite3_vfs vfs_over(struct files *files, const char *name);
