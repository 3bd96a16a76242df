"""What leaves flsim: a run's adapter, its merged model, its rows with a data dictionary."""
