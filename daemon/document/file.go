package document

import (
	"fmt"
	"io"
	"os"
	"syscall"
)

// ReadFile returns what is in a file of at most so many bytes. That it is longer,
// or no file, is a fault of its own.
func ReadFile(path string, most int64) ([]byte, error) {
	// Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && !info.Mode().IsRegular() {
		return nil, Faults{{Text: "it is no regular file, but " + kind(info.Mode())}}
	}
	text, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(text)) > most {
		return nil, Faults{{Text: fmt.Sprintf("it is longer than %d bytes", most)}}
	}
	return text, err
}

func kind(m os.FileMode) string {
	switch {
	case m.IsDir():
		return "a directory"
	case m&os.ModeNamedPipe != 0:
		return "a pipe"
	case m&os.ModeSocket != 0:
		return "a socket"
	default:
		return "a device"
	}
}
