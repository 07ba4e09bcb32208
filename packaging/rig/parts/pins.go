//go:build pins

package parts

// These imports keep the versions in go.mod when "go mod tidy" runs. Nothing
// builds them from here: a program cannot be imported.
import (
	_ "github.com/gen2brain/malgo"
	_ "github.com/ollama/ollama"
	_ "github.com/ollama/ollama/integration"
)
