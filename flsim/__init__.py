"""flsim"""
