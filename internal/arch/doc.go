// Package arch answers the question: does the code still have the shape we
// agreed on? It holds no code, only tests: the import order, the fences around
// heavy dependencies, package comments and file sizes.
package arch
