package job

import "strings"

// SameModel reports whether two spellings name the same model of a backend:
// Ollama's names have a default host, namespace and tag, and no case.
func SameModel(a, b string) bool {
	return strings.EqualFold(CanonicalModel(a), CanonicalModel(b))
}

// CanonicalModel returns the name with its defaults made plain: the shortest
// form with a tag.
func CanonicalModel(name string) string {
	for _, prefix := range []string{"https://", "http://", "registry.ollama.ai/", "library/"} {
		if len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
			name = name[len(prefix):]
		}
	}
	if !strings.Contains(name[strings.LastIndexByte(name, '/')+1:], ":") {
		name += ":latest"
	}
	return name
}
