// Builds the HashiCorp Vault server that the tests run against, from its public
// Go module. The binary is for tests and demonstrations only and ships in no image.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
