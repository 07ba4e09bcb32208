package config

import (
	"io/fs"
	"syscall"
)

// inode returns what identifies a file, whatever its name.
func inode(info fs.FileInfo) (device, node uint64) {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Dev, s.Ino
	}
	return 0, 0
}
