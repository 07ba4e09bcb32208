package job

import "strings"

// SameModel reports whether two spellings name the same model of a backend:
// Ollama's names have a default host, namespace and tag, and no case.
func SameModel(a, b string) bool {
	return strings.EqualFold(CanonicalModel(a), CanonicalModel(b))
}

// Registry returns the host that a model's name says to fetch it from, or "" for
// the one where Ollama looks if it says none.
func Registry(name string) string {
	if _, rest, found := strings.Cut(name, "://"); found {
		name = rest
	}
	host, rest, _ := strings.Cut(name, "/")
	if host = strings.ToLower(host); !strings.Contains(rest, "/") || host == "registry.ollama.ai" {
		return ""
	}
	return host
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
