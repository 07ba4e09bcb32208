// Package parts pins, in its go.mod, the foreign programs that the rig builds:
// Ollama's server with its integration suite, and malgo for miniaudio.h, a
// header that Ollama's module needs and leaves out. It is a module of its own,
// so that none of what they need is the product's.
package parts
