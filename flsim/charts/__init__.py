"""The figures of a run as data that a browser draws: rows in; charts, their JSON and the pieces of a page out."""
