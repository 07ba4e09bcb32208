// Command tinymodel writes a language model of half a megabyte: the smallest
// one that a real Ollama loads, runs and measures like any other.
//
//	tinymodel FILE.gguf
//
// It is a llama of two blocks whose weights are random, from a fixed seed, but
// for its embeddings and its output matrix, which are shaped by a grammar. So
// it talks nonsense in whole English words and whole sentences, and costs next
// to nothing.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/ollama/ollama/fs/ggml"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: tinymodel FILE.gguf")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "tinymodel:", err)
		os.Exit(1)
	}
}

// write puts the model at path. A model that was there stays until the new one
// is complete.
func write(path string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // After the rename there is none.

	v := newVocabulary()
	if err := ggml.WriteGGUF(f, metadata(v), tensors(v)); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
